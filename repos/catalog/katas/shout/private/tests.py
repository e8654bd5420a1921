def test_1(f):
    assert f('hi') == 'HI!'


def test_2(f):
    assert f('') == '!'


def test_3(f):
    assert f('Stop it') == 'STOP IT!'


def test_4(f):
    assert f('a') == 'A!'

def test_1(f):
    assert f('12') == 12


def test_2(f):
    assert f('0') == 0


def test_3(f):
    assert f('-7') == -7


def test_4(f):
    assert f('1000') == 1000

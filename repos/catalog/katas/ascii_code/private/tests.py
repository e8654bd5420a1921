def test_1(f):
    assert f('a') == 97


def test_2(f):
    assert f('A') == 65


def test_3(f):
    assert f('0') == 48


def test_4(f):
    assert f(' ') == 32

def test_1(f):
    assert f('abc') == 3


def test_2(f):
    assert f('') == 0


def test_3(f):
    assert f('hello world') == 11


def test_4(f):
    assert f(' ') == 1

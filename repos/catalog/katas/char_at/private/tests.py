def test_1(f):
    assert f('abc', 0) == 'a'


def test_2(f):
    assert f('abc', 2) == 'c'


def test_3(f):
    assert f('hello', 1) == 'e'


def test_4(f):
    assert f('hello', 4) == 'o'

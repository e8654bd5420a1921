def test_1(f):
    assert f('hello world', 'world') is True


def test_2(f):
    assert f('hello', 'x') is False


def test_3(f):
    assert f('abc', 'bc') is True


def test_4(f):
    assert f('abc', 'cb') is False

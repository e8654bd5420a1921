def test_1(f):
    assert f('hello', 'he') is True


def test_2(f):
    assert f('hello', 'lo') is False


def test_3(f):
    assert f('a', 'ab') is False


def test_4(f):
    assert f('abc', 'abc') is True

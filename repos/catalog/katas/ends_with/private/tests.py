def test_1(f):
    assert f('hello', 'lo') is True


def test_2(f):
    assert f('hello', 'he') is False


def test_3(f):
    assert f('b', 'ab') is False


def test_4(f):
    assert f('abc', 'abc') is True

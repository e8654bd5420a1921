def test_1(f):
    assert f('abba') is True


def test_2(f):
    assert f('abc') is False


def test_3(f):
    assert f('a') is True


def test_4(f):
    assert f('level') is True


def test_5(f):
    assert f('ab') is False

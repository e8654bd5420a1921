def test_1(f):
    assert f('') is True


def test_2(f):
    assert f('a') is False


def test_3(f):
    assert f(' ') is False


def test_4(f):
    assert f('hello') is False

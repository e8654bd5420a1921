def test_1(f):
    assert f('ab', 'cd') is True


def test_2(f):
    assert f('ab', 'c') is False


def test_3(f):
    assert f('', '') is True


def test_4(f):
    assert f('hello', 'hallo') is True


def test_5(f):
    assert f('x', '') is False

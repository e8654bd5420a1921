def test_1(f):
    assert f('Ab', 'aB') is True


def test_2(f):
    assert f('ab', 'abc') is False


def test_3(f):
    assert f('X', 'x') is True


def test_4(f):
    assert f('x', 'y') is False

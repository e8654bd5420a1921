def test_1(f):
    assert f(1, 2) == (2, 1)


def test_2(f):
    assert f('x', 'y') == ('y', 'x')


def test_3(f):
    assert f(0, 0) == (0, 0)


def test_4(f):
    assert f(True, 5) == (5, True)

def test_1(f):
    assert f(1, 2, 3) == 3


def test_2(f):
    assert f(9, 3, 4) == 9


def test_3(f):
    assert f(4, 7, 5) == 7


def test_4(f):
    assert f(-5, -2, -9) == -2


def test_5(f):
    assert f(6, 6, 1) == 6

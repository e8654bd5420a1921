def test_1(f):
    assert f(1, 2, 3) == 1


def test_2(f):
    assert f(9, 3, 4) == 3


def test_3(f):
    assert f(7, 4, 2) == 2


def test_4(f):
    assert f(-5, -2, -9) == -9


def test_5(f):
    assert f(6, 6, 8) == 6

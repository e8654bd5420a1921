def test_1(f):
    assert f(2, 3) == 6


def test_2(f):
    assert f(10, 0) == 0


def test_3(f):
    assert f(5, 5) == 25


def test_4(f):
    assert f(7, 1) == 7


def test_5(f):
    assert f(100, 12) == 1200

def test_1(f):
    assert f(1, 2, 3) == 6


def test_2(f):
    assert f(2, 2, 2) == 8


def test_3(f):
    assert f(5, 1, 4) == 20


def test_4(f):
    assert f(10, 10, 10) == 1000


def test_5(f):
    assert f(3, 0, 2) == 0

def test_1(f):
    assert f(1) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_2(f):
    assert f(2) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


def test_3(f):
    assert f(0) == [0] * 10


def test_4(f):
    assert f(10) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]

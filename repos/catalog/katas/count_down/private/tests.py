def test_1(f):
    assert f(3) == [3, 2, 1]


def test_2(f):
    assert f(1) == [1]


def test_3(f):
    assert f(5) == [5, 4, 3, 2, 1]


def test_4(f):
    assert f(2) == [2, 1]

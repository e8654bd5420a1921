def test_1(f):
    assert f([1, 5, 2]) == [5, 2]


def test_2(f):
    assert f([9, 8]) == [9, 8]


def test_3(f):
    assert f([3, 7, 7, 1]) == [7, 7]


def test_4(f):
    assert f([-1, -2, -3]) == [-1, -2]

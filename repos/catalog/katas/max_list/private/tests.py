def test_1(f):
    assert f([1, 3, 2]) == 3


def test_2(f):
    assert f([5]) == 5


def test_3(f):
    assert f([-4, -9]) == -4


def test_4(f):
    assert f([10, 2, 10]) == 10

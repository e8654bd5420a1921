def test_1(f):
    assert f([1, 5, 2]) == 2


def test_2(f):
    assert f([9, 8]) == 8


def test_3(f):
    assert f([-3, 3, 0]) == 0


def test_4(f):
    assert f([7, 10, 20, 1]) == 10

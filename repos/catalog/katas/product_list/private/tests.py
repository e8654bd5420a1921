def test_1(f):
    assert f([1, 2, 3]) == 6


def test_2(f):
    assert f([5]) == 5


def test_3(f):
    assert f([4, 0, 9]) == 0


def test_4(f):
    assert f([2, 2, 2, 2]) == 16


def test_5(f):
    assert f([-1, 7]) == -7

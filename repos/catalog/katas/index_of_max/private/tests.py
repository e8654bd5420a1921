def test_1(f):
    assert f([1, 5, 2]) == 1


def test_2(f):
    assert f([9]) == 0


def test_3(f):
    assert f([-3, -2]) == 1


def test_4(f):
    assert f([7, 1, 2]) == 0

def test_1(f):
    assert f([1, -2, 3]) == 4


def test_2(f):
    assert f([]) == 0


def test_3(f):
    assert f([-1, -3]) == 0


def test_4(f):
    assert f([10, 5, -5]) == 15

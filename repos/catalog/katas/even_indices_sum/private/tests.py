def test_1(f):
    assert f([1, 2, 3, 4]) == 4


def test_2(f):
    assert f([]) == 0


def test_3(f):
    assert f([5]) == 5


def test_4(f):
    assert f([1, 10, 1, 10, 1]) == 3

def test_1(f):
    assert f([1, 2, 3]) == [1, 4, 9]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f([-4]) == [16]


def test_4(f):
    assert f([0, 10]) == [0, 100]

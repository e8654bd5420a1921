def test_1(f):
    assert f([1, 2, 3, 4]) == [2, 4]


def test_2(f):
    assert f([]) == []


def test_3(f):
    assert f([1, 3]) == []


def test_4(f):
    assert f([0, -2, 5]) == [0, -2]

def test_1(f):
    assert f(1) == [1]


def test_2(f):
    assert f(6) == [1, 2, 3, 6]


def test_3(f):
    assert f(7) == [1, 7]


def test_4(f):
    assert f(12) == [1, 2, 3, 4, 6, 12]

def test_1(f):
    assert f(3) == [1, 4, 9]


def test_2(f):
    assert f(1) == [1]


def test_3(f):
    assert f(5) == [1, 4, 9, 16, 25]


def test_4(f):
    assert f(2) == [1, 4]

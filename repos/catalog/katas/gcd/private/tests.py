def test_1(f):
    assert f(12, 8) == 4


def test_2(f):
    assert f(7, 5) == 1


def test_3(f):
    assert f(9, 3) == 3


def test_4(f):
    assert f(10, 10) == 10


def test_5(f):
    assert f(100, 75) == 25

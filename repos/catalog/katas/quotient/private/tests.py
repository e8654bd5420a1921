def test_1(f):
    assert f(7, 3) == 2


def test_2(f):
    assert f(8, 4) == 2


def test_3(f):
    assert f(3, 10) == 0


def test_4(f):
    assert f(29, 5) == 5


def test_5(f):
    assert f(100, 1) == 100

def test_1(f):
    assert f(1, 2, 3) == 6


def test_2(f):
    assert f(0, 0, 0) == 0


def test_3(f):
    assert f(-1, 5, 2) == 6


def test_4(f):
    assert f(10, 20, 30) == 60

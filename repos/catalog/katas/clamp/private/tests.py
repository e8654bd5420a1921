def test_1(f):
    assert f(5, 0, 10) == 5


def test_2(f):
    assert f(-5, 0, 10) == 0


def test_3(f):
    assert f(15, 0, 10) == 10


def test_4(f):
    assert f(0, 0, 10) == 0


def test_5(f):
    assert f(7, 2, 3) == 3

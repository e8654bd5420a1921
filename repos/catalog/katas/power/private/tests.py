def test_1(f):
    assert f(2, 3) == 8


def test_2(f):
    assert f(5, 0) == 1


def test_3(f):
    assert f(3, 4) == 81


def test_4(f):
    assert f(-2, 3) == -8


def test_5(f):
    assert f(10, 1) == 10

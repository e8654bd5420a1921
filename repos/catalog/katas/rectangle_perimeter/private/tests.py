def test_1(f):
    assert f(2, 3) == 10


def test_2(f):
    assert f(1, 1) == 4


def test_3(f):
    assert f(10, 5) == 30


def test_4(f):
    assert f(4, 7) == 22


def test_5(f):
    assert f(8, 8) == 32

def test_1(f):
    assert f(4) == 2


def test_2(f):
    assert f(3) == 10


def test_3(f):
    assert f(1) == 4


def test_4(f):
    assert f(10) == 5


def test_5(f):
    assert f(7) == 22

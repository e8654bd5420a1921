def test_1(f):
    assert f(5) == 1


def test_2(f):
    assert f(12) == 2


def test_3(f):
    assert f(999) == 3


def test_4(f):
    assert f(1000) == 4


def test_5(f):
    assert f(123456) == 6

def test_1(f):
    assert f(12) == 3


def test_2(f):
    assert f(99) == 18


def test_3(f):
    assert f(10) == 1


def test_4(f):
    assert f(45) == 9

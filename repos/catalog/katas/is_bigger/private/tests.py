def test_1(f):
    assert f(2, 1) is True


def test_2(f):
    assert f(1, 2) is False


def test_3(f):
    assert f(3, 3) is False


def test_4(f):
    assert f(-1, -5) is True


def test_5(f):
    assert f(0, 7) is False

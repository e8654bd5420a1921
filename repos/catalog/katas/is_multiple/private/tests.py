def test_1(f):
    assert f(6, 3) is True


def test_2(f):
    assert f(7, 3) is False


def test_3(f):
    assert f(0, 5) is True


def test_4(f):
    assert f(3, 6) is False


def test_5(f):
    assert f(100, 10) is True

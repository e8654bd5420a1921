def test_1(f):
    assert f(1, 2) is True


def test_2(f):
    assert f(-1, -2) is True


def test_3(f):
    assert f(-1, 2) is False


def test_4(f):
    assert f(3, -8) is False

def test_1(f):
    assert f(5, 1, 10) is True


def test_2(f):
    assert f(0, 1, 10) is False


def test_3(f):
    assert f(1, 1, 10) is True


def test_4(f):
    assert f(10, 1, 10) is True


def test_5(f):
    assert f(11, 1, 10) is False

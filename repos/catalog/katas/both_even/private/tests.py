def test_1(f):
    assert f(2, 4) is True


def test_2(f):
    assert f(2, 3) is False


def test_3(f):
    assert f(1, 4) is False


def test_4(f):
    assert f(1, 3) is False


def test_5(f):
    assert f(0, 0) is True

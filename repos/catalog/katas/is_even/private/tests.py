def test_1(f):
    assert f(2) is True


def test_2(f):
    assert f(3) is False


def test_3(f):
    assert f(0) is True


def test_4(f):
    assert f(-4) is True


def test_5(f):
    assert f(-7) is False


def test_6(f):
    assert f(101) is False

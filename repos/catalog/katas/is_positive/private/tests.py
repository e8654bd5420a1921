def test_1(f):
    assert f(2) is True


def test_2(f):
    assert f(-3) is False


def test_3(f):
    assert f(0) is False


def test_4(f):
    assert f(0.5) is True


def test_5(f):
    assert f(-0.1) is False

def test_1(f):
    assert f(True) is False


def test_2(f):
    assert f(False) is True


def test_3(f):
    assert f(1 == 1) is False


def test_4(f):
    assert f(1 == 2) is True

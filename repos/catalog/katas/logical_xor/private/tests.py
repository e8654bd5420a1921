def test_1(f):
    assert f(True, False) is True


def test_2(f):
    assert f(False, True) is True


def test_3(f):
    assert f(True, True) is False


def test_4(f):
    assert f(False, False) is False

def test_1(f):
    assert f(2) is True


def test_2(f):
    assert f(1) is False


def test_3(f):
    assert f(9) is False


def test_4(f):
    assert f(13) is True


def test_5(f):
    assert f(15) is False


def test_6(f):
    assert f(4) is False


def test_7(f):
    assert f(7) is True

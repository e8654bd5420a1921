def test_1(f):
    assert f(18) is True


def test_2(f):
    assert f(17) is False


def test_3(f):
    assert f(40) is True


def test_4(f):
    assert f(0) is False


def test_5(f):
    assert f(19) is True

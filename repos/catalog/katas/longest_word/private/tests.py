def test_1(f):
    assert f(['a', 'bbb', 'cc']) == 'bbb'


def test_2(f):
    assert f(['x']) == 'x'


def test_3(f):
    assert f(['hello', 'hi']) == 'hello'


def test_4(f):
    assert f(['to', 'be', 'free']) == 'free'

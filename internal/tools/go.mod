module github.com/backstay-go/backstay/internal/tools

go 1.26.0

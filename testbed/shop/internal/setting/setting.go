// Package setting reads the shop's configuration from environment variables and secret files.
package setting

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Get returns the variable's value or, when it is empty, a default.
func Get(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

// Float reads a number that must be above zero.
func Float(name string, value float64) (float64, error) {
	text := os.Getenv(name)
	if text == "" {
		return value, nil
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || number <= 0 {
		return 0, fmt.Errorf("read %s: %q is not a number above zero", name, text)
	}
	return number, nil
}

// Database builds the connection's configuration from DB_HOST, DB_PORT, DB_NAME, DB_USER and the password in the file
// DB_PASSWORD_FILE or in DB_PASSWORD.
func Database() (*pgx.ConnConfig, error) {
	password := os.Getenv("DB_PASSWORD")
	if file := os.Getenv("DB_PASSWORD_FILE"); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read password: %w; DB_PASSWORD_FILE must name a mounted Secret", err)
		}
		password = strings.TrimRight(string(data), "\n")
	}
	if password == "" {
		return nil, errors.New("read password: set DB_PASSWORD_FILE or DB_PASSWORD")
	}
	port, err := strconv.ParseUint(Get("DB_PORT", "5432"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("read DB_PORT: %w", err)
	}
	config, err := pgx.ParseConfig("sslmode=disable connect_timeout=3")
	if err != nil {
		return nil, fmt.Errorf("make database configuration: %w", err)
	}
	config.Host, config.Port = Get("DB_HOST", "localhost"), uint16(port)
	config.Database, config.User, config.Password = Get("DB_NAME", "shop"), Get("DB_USER", "shop"), password
	return config, nil
}

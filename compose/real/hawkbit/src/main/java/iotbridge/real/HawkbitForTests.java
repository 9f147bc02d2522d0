package iotbridge.real;

import org.eclipse.hawkbit.autoconfigure.security.EnableHawkbitManagedSecurityConfiguration;
import org.springframework.beans.factory.config.BeanDefinition;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Role;
import org.springframework.security.access.intercept.aopalliance.MethodSecurityMetadataSourceAdvisor;
import org.springframework.security.access.method.MethodSecurityMetadataSource;

/** HawkBit's own Management API and DDI, started without its user interface. */
@SpringBootApplication
@EnableHawkbitManagedSecurityConfiguration
public class HawkbitForTests {

    public static void main(final String[] arguments) {
        SpringApplication.run(HawkbitForTests.class, arguments);
    }

    /**
     * Applies hawkBit's permission checks. Must stay: the user interface would bring this advisor, and without
     * it every user may do everything.
     */
    @Bean
    @Role(BeanDefinition.ROLE_INFRASTRUCTURE)
    static MethodSecurityMetadataSourceAdvisor permissionAdvisor(final MethodSecurityMetadataSource permissions) {
        return new MethodSecurityMetadataSourceAdvisor(
                "methodSecurityInterceptor", permissions, "methodSecurityMetadataSource");
    }
}

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.parser.IParser;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.SingleValidationMessage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.PrePopulatedValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.hl7.fhir.instance.model.api.IBaseResource;
import org.hl7.fhir.r4.model.MetadataResource;

/**
 * The HL7 validator, R4, without any network: says what it finds in the files that are named.
 *
 * <p>The first argument is a folder of forms, measures and code systems to check the others against, each in a file of
 * its own. Each finding is a line of file, severity, message id, place and words, between tabulators.
 */
public class HapiValidator {

    /** Resources that are known by their canonical URL, with their version and without. */
    private static class Known extends PrePopulatedValidationSupport {
        private final Map<String, MetadataResource> all = new HashMap<>();

        Known(FhirContext context, Path folder) throws IOException {
            super(context);
            IParser parser = context.newJsonParser();
            try (var files = Files.list(folder)) {
                for (Path file : files.sorted().toList()) {
                    add((MetadataResource) parser.parseResource(Files.readString(file)));
                }
            }
        }

        private void add(MetadataResource resource) {
            addResource(resource);
            all.put(resource.getUrl(), resource);
            all.put(resource.getUrl() + "|" + resource.getVersion(), resource);
        }

        @Override
        public <T extends IBaseResource> T fetchResource(Class<T> type, String url) {
            MetadataResource found = all.get(url);
            return type != null && type.isInstance(found) ? type.cast(found) : super.fetchResource(type, url);
        }
    }

    private static String plain(Object said) {
        return String.valueOf(said).replaceAll("\\s+", " ");
    }

    public static void main(String[] arguments) throws Exception {
        FhirContext context = FhirContext.forR4();
        ValidationSupportChain support = new ValidationSupportChain(
                new DefaultProfileValidationSupport(context),
                new Known(context, Path.of(arguments[0])),
                new InMemoryTerminologyServerValidationSupport(context),
                new CommonCodeSystemsTerminologyService(context));
        FhirValidator validator = context.newValidator().registerValidatorModule(new FhirInstanceValidator(support));
        for (String name : List.of(arguments).subList(1, arguments.length)) {
            Path file = Path.of(name);
            for (SingleValidationMessage found : validator.validateWithResult(Files.readString(file)).getMessages()) {
                System.out.println(String.join(
                        "\t",
                        file.getFileName().toString(),
                        plain(found.getSeverity()),
                        plain(found.getMessageId()),
                        plain(found.getLocationString()),
                        plain(found.getMessage())));
            }
        }
        System.out.println("done");
    }
}
